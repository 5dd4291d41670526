"""What judges behind the web server: queue, uploads, heat maps, live camera, metrics."""
