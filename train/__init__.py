"""From folders of faces to an evaluated checkpoint."""
