"""From training samples to a fine-tuned model or an adapter that the application opens."""
