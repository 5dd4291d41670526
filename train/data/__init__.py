"""From picture files to a catalog of labelled faces with splits."""
