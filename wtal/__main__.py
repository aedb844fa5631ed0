import sys

from wtal.commands.main import main

sys.exit(main())
