"""From files on disk to training patches: readers, splits, plan, store, loaders, phantoms."""
