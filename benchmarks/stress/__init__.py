"""What wears a library out: hostile arguments, sizes, repetition, threads, processes, signals, installs."""
