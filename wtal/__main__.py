from wtal.commands.main import entry

entry()
