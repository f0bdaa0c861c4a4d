"""The neural tokenizer: configuration, layers, quantizer, model, and its streaming use."""
