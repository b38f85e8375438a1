"""Checks of an installation, and of a model for failures that raise no error.

``examine(DoctorOptions(...))`` in ``examine.py`` returns a ``Report``: what is installed and what
the machine offers, and one ``Finding`` a check. Nothing is printed here.
"""
