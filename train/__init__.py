"""From folders of faces to a judged checkpoint."""
