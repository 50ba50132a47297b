"""What every command shows and asks with."""
