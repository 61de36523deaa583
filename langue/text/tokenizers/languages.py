"""The language codes of translation models, and where their tokenizers put them.

mBART (Liu et al. 2020, arXiv:2001.08210) appends the code of the language to a source text, and
starts a target with it; mBART-50 (Tang et al. 2020, arXiv:2008.00401) and NLLB (arXiv:2207.04672)
prepend it to source and target texts. Marian (Junczys-Dowmunt et al. 2018, arXiv:1804.00344) is
only told the target language, before the source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import tokenizers
from tokenizers import processors

from langue.errors import ModelError

MBART = (
    *("ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN"),
    *("hi_IN", "it_IT", "ja_XX", "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP"),
    *("nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN", "zh_CN"),
)
MBART50 = (
    *MBART,
    *("af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH"),
    *("mk_MK", "ml_IN", "mn_MN", "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE"),
    *("ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA", "ur_PK", "xh_ZA", "gl_ES", "sl_SI"),
)
NLLB = (
    *("ace_Arab", "ace_Latn", "acm_Arab", "acq_Arab", "aeb_Arab", "afr_Latn", "ajp_Arab"),
    *("aka_Latn", "amh_Ethi", "apc_Arab", "arb_Arab", "ars_Arab", "ary_Arab", "arz_Arab"),
    *("asm_Beng", "ast_Latn", "awa_Deva", "ayr_Latn", "azb_Arab", "azj_Latn", "bak_Cyrl"),
    *("bam_Latn", "ban_Latn", "bel_Cyrl", "bem_Latn", "ben_Beng", "bho_Deva", "bjn_Arab"),
    *("bjn_Latn", "bod_Tibt", "bos_Latn", "bug_Latn", "bul_Cyrl", "cat_Latn", "ceb_Latn"),
    *("ces_Latn", "cjk_Latn", "ckb_Arab", "crh_Latn", "cym_Latn", "dan_Latn", "deu_Latn"),
    *("dik_Latn", "dyu_Latn", "dzo_Tibt", "ell_Grek", "eng_Latn", "epo_Latn", "est_Latn"),
    *("eus_Latn", "ewe_Latn", "fao_Latn", "pes_Arab", "fij_Latn", "fin_Latn", "fon_Latn"),
    *("fra_Latn", "fur_Latn", "fuv_Latn", "gla_Latn", "gle_Latn", "glg_Latn", "grn_Latn"),
    *("guj_Gujr", "hat_Latn", "hau_Latn", "heb_Hebr", "hin_Deva", "hne_Deva", "hrv_Latn"),
    *("hun_Latn", "hye_Armn", "ibo_Latn", "ilo_Latn", "ind_Latn", "isl_Latn", "ita_Latn"),
    *("jav_Latn", "jpn_Jpan", "kab_Latn", "kac_Latn", "kam_Latn", "kan_Knda", "kas_Arab"),
    *("kas_Deva", "kat_Geor", "knc_Arab", "knc_Latn", "kaz_Cyrl", "kbp_Latn", "kea_Latn"),
    *("khm_Khmr", "kik_Latn", "kin_Latn", "kir_Cyrl", "kmb_Latn", "kon_Latn", "kor_Hang"),
    *("kmr_Latn", "lao_Laoo", "lvs_Latn", "lij_Latn", "lim_Latn", "lin_Latn", "lit_Latn"),
    *("lmo_Latn", "ltg_Latn", "ltz_Latn", "lua_Latn", "lug_Latn", "luo_Latn", "lus_Latn"),
    *("mag_Deva", "mai_Deva", "mal_Mlym", "mar_Deva", "min_Latn", "mkd_Cyrl", "plt_Latn"),
    *("mlt_Latn", "mni_Beng", "khk_Cyrl", "mos_Latn", "mri_Latn", "zsm_Latn", "mya_Mymr"),
    *("nld_Latn", "nno_Latn", "nob_Latn", "npi_Deva", "nso_Latn", "nus_Latn", "nya_Latn"),
    *("oci_Latn", "gaz_Latn", "ory_Orya", "pag_Latn", "pan_Guru", "pap_Latn", "pol_Latn"),
    *("por_Latn", "prs_Arab", "pbt_Arab", "quy_Latn", "ron_Latn", "run_Latn", "rus_Cyrl"),
    *("sag_Latn", "san_Deva", "sat_Beng", "scn_Latn", "shn_Mymr", "sin_Sinh", "slk_Latn"),
    *("slv_Latn", "smo_Latn", "sna_Latn", "snd_Arab", "som_Latn", "sot_Latn", "spa_Latn"),
    *("als_Latn", "srd_Latn", "srp_Cyrl", "ssw_Latn", "sun_Latn", "swe_Latn", "swh_Latn"),
    *("szl_Latn", "tam_Taml", "tat_Cyrl", "tel_Telu", "tgk_Cyrl", "tgl_Latn", "tha_Thai"),
    *("tir_Ethi", "taq_Latn", "taq_Tfng", "tpi_Latn", "tsn_Latn", "tso_Latn", "tuk_Latn"),
    *("tum_Latn", "tur_Latn", "twi_Latn", "tzm_Tfng", "uig_Arab", "ukr_Cyrl", "umb_Latn"),
    *("urd_Arab", "uzn_Latn", "vec_Latn", "vie_Latn", "war_Latn", "wol_Latn", "xho_Latn"),
    *("ydd_Hebr", "yor_Latn", "yue_Hant", "zho_Hans", "zho_Hant", "zul_Latn"),
)
_M2M100 = (
    *("af", "am", "ar", "ast", "az", "ba", "be", "bg", "bn", "br", "bs", "ca", "ceb", "cs", "cy"),
    *("da", "de", "el", "en", "es", "et", "fa", "ff", "fi", "fr", "fy", "ga", "gd", "gl", "gu"),
    *("ha", "he", "hi", "hr", "ht", "hu", "hy", "id", "ig", "ilo", "is", "it", "ja", "jv", "ka"),
    *("kk", "km", "kn", "ko", "lb", "lg", "ln", "lo", "lt", "lv", "mg", "mk", "ml", "mn", "mr"),
    *("ms", "my", "ne", "nl", "no", "ns", "oc", "or", "pa", "pl", "ps", "pt", "ro", "ru", "sd"),
    *("si", "sk", "sl", "so", "sq", "sr", "ss", "su", "sv", "sw", "ta", "th", "tl", "tn", "tr"),
    *("uk", "ur", "uz", "vi", "wo", "xh", "yi", "yo", "zh", "zu"),
)
M2M100 = tuple(f"__{code}__" for code in _M2M100)
# codes of the models of WMT 2021 (Tran et al. 2021, arXiv:2108.03265), in the order of their ids
WMT21 = tuple(f"__{code}__" for code in ("en", "ha", "is", "ja", "cs", "ru", "zh", "de"))
MARKS = "<>_"  # the characters around a code in a vocabulary
SHOWN = 12  # maximum number of languages that an error lists


@dataclass(frozen=True)
class LanguageRule:
    """Where a class of tokenizers puts the language code; `{}` in a frame stands for the code."""

    codes: tuple[str, ...]  # the languages of the class
    default: str | None  # the source language if none is specified
    source: tuple[str, ...]  # the frame of a source: tokens, and "$A" for the text
    target: tuple[str, ...]
    # How the decoder gets the target language: as its start token, as the first generated token, or
    # by the frame of the source.
    target_code_at: Literal["decoder start", "first token", "source"]


RULES: dict[str, LanguageRule] = {
    "MBart": LanguageRule(
        MBART, "en_XX", ("$A", "</s>", "{}"), ("$A", "</s>", "{}"), "decoder start"
    ),
    "MBart50": LanguageRule(
        MBART50, "en_XX", ("{}", "$A", "</s>"), ("{}", "$A", "</s>"), "first token"
    ),
    "Nllb": LanguageRule(
        NLLB, "eng_Latn", ("{}", "$A", "</s>"), ("{}", "$A", "</s>"), "first token"
    ),
    "M2M100": LanguageRule(
        M2M100, "__en__", ("{}", "$A", "</s>"), ("{}", "$A", "</s>"), "first token"
    ),
}


class Languages:
    """The languages of a tokenizer, and the tokens that it adds around a text in each."""

    def __init__(
        self, rule: LanguageRule, ids: Mapping[str, int], tokens: Mapping[str, str] | None = None
    ) -> None:
        """ids: of the codes and of the tokens in the frames. tokens: names of the codes in the
        backend.
        """
        self.rule = rule
        self.ids = dict(ids)
        self.codes = [code for code in rule.codes if code in self.ids]
        self.tokens = dict(tokens or {})

    def check(self, language: str, what: str, where: str = "") -> str:
        """Return the code of the language; raise ModelError if the model does not have it."""
        written = (language, f">>{language}<<", f"__{language}__")
        found = next((code for code in written if code in self.codes), None)
        if found is None:
            listed = ", ".join(code.strip(MARKS) for code in self.codes[:SHOWN])
            more = f" and {len(self.codes) - SHOWN} more" if len(self.codes) > SHOWN else ""
            raise ModelError(
                f"{what} {language!r} is not a language of the model",
                where=where,
                do=f"it has {listed}{more}",
            )
        return found

    def processor(self, frame: tuple[str, ...], language: str) -> Any:
        """Return the post-processor that puts a text of this language, or a pair, into
        the frame.
        """
        words = [
            self.tokens.get(word, word)
            for word in (language if each == "{}" else each for each in frame)
        ]
        place = words.index("$A")
        special = [word for word in dict.fromkeys(words) if word != "$A"]
        return processors.TemplateProcessing(
            single=words,
            pair=[*words[: place + 1], "$B", *words[place + 1 :]],
            special_tokens=[(word, self.ids[word]) for word in special],
        )


def languages_of(backend: tokenizers.Tokenizer, kind: str) -> Languages | None:
    """Return the languages of a tokenizer of this class; None if the class or its vocabulary has
    none.
    """
    rule = RULES.get(kind)
    if rule is None:
        return None
    names = {*rule.codes, "</s>"}
    ids = {name: index for name in names if (index := backend.token_to_id(name)) is not None}
    return Languages(rule, ids) if "</s>" in ids and len(ids) > 1 else None
