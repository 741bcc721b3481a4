"""From checked files to a model whose weights are in place: shards, names, casting, quantizing and keeping."""
