"""Networks of autoencoders: one file per architecture."""
