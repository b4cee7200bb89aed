"""The paper's experiments as data (one YAML file each), and what carries them out."""
