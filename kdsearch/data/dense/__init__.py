"""Sets whose images each come with a truth of their own: masks, edge maps or boxes."""
