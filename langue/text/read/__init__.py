"""Reads files, archives, tables and Hub data sets as rows and documents."""
