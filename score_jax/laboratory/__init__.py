"""Every method side by side: trained, asked, compared, tabulated and drawn."""
