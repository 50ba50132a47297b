"""What a file of upstream says: lines and how they correspond, scopes, CMake, requirements."""
