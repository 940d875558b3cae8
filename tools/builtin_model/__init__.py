"""Makes the built-in model of headrace: its text, its tokenizer, its weights and its model card."""
