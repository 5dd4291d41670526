"""What tests of several packages share; import it as `helpers.NAME`."""
