"""edge-forward: results from their file to an MQTT broker, each once."""
