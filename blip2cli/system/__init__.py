"""What the process runs on: cores, memory, malloc and OpenMP settings, libraries' own output."""
