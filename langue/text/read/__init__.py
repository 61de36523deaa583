"""Files, archives, tables and Hub data sets to rows and documents."""
