"""judge-pictures: millions of pictures in parts, on one machine or many. Needs the extra `bulk`."""
