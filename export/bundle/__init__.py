"""The files of a bundle, written all or nothing."""
