"""From files to records to tokens."""
