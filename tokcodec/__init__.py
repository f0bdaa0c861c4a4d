"""A neural video codec whose compressed form is the tokens of a language model."""
