"""Other people's taggers, run as SAT is: `sat.taggers` names them. Their packages are imported when they are used."""
