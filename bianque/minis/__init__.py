"""The embedded demonstration models: knowledge, corpus, training, evaluation."""
