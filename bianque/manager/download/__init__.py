"""From a name on the Hub to checked files on disk: what to fetch, resuming, the cache, integrity and progress."""
