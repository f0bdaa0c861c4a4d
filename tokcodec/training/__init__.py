"""Training of the tokenizer: data, losses, loop. Nothing outside this package imports it but the command line."""
