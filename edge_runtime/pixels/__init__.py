"""From picture files to the pixels the network sees."""
