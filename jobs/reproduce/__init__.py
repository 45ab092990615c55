"""The models and figures of the paper's tables, from AudioSet (`satpipe reproduce`)."""
