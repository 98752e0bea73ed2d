"""Language models behind one async interface: clients, servers, tools; agents and memories' insides are others'."""
