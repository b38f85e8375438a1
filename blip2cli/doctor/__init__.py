"""Is everything as it should be? The installation, and a model's silent failures.

``examine(DoctorOptions(...))`` in ``examine.py`` returns a ``Report``: what is installed and what
the machine offers, and one ``Finding`` a check. Nothing is printed here.
"""
