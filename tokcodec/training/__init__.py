"""Training of the tokenizer: data, losses, loop. Only the command line imports it."""
