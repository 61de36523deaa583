"""Print what quantization did to a model."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from langue.runs.show_plan import size_of


def print_quantized(content: Mapping[str, Any], console: Console) -> None:
    """The errors, the sizes, and the perplexities where there are some."""
    from langue.compress.matrix_errors import MatrixError, table_of_errors
    from langue.evaluation.terminal import print_table

    errors = [MatrixError(**each) for each in content["matrices"]]
    print_table(console, table_of_errors(errors))
    before = size_of(content["bytes_before"])
    console.print(f"weights: {before} in fp32, {size_of(content['bytes_after'])} now")
    if content["perplexity"] is not None:
        told = content["perplexity"]
        change = told["after"] / told["before"] - 1
        console.print(
            f"perplexity: {told['before']:.4f} before, {told['after']:.4f} after"
            f" ({change:+.2%}), on {told['documents']:,} documents, {told['tokens']:,} tokens"
        )
    console.print(content["out"], markup=False, highlight=False)
