"""Names that a subject must not be taken for: well-known ones of many kinds, and others that end as it does.

Knows no model and no data set.
"""

from __future__ import annotations

__all__ = ["NAMES", "namesakes", "other_names"]

NAMES = tuple(
    """
    Norway|Morocco|France|Germany|Spain|Portugal|Greece|Turkey|Poland|Russia|China|Japan|India|Brazil|Mexico|Canada
    Australia|Egypt|Kenya|Nigeria|Chile|Peru|Cuba|Iran|Iraq|Israel|Sweden|Finland|Denmark|Ireland|Scotland|Austria
    Hungary|Romania|Ukraine|Vietnam|Thailand|Korea|Indonesia|Argentina|Colombia|Belgium|Switzerland|New Zealand
    South Africa|Saudi Arabia|the United States|the Soviet Union|Europe|Africa|Asia|Antarctica|South America
    London|Paris|Berlin|Rome|Madrid|Vienna|Moscow|Tokyo|Beijing|Delhi|Cairo|Lagos|New York|Los Angeles|Chicago|Boston
    Toronto|Sydney|Dublin|Prague|Warsaw|Athens|Istanbul|Baghdad|Jerusalem|Singapore|San Francisco|Saint Louis|Oxford
    California|Texas|Florida|Ontario|Bavaria|Tuscany|Punjab|Siberia|the Alps|the Amazon|the Danube|Lake Victoria
    Mount Everest|Central Park|the Pacific Ocean|Buckingham Palace|Heathrow Airport|the Brooklyn Bridge|Yale University
    John Smith|Mary Jones|William Brown|Elizabeth Taylor|George Washington|Napoleon|Julius Caesar|Albert Einstein
    Isaac Newton|Charles Darwin|Johann Sebastian Bach|Wolfgang Mozart|Pablo Picasso|William Shakespeare|Jane Austen
    Maria Garcia|Jean Dupont|Giovanni Rossi|Hans Mueller|Ivan Petrov|Li Wei|Hiroshi Tanaka|Ahmed Hassan|Kim Lee
    Charlie Chaplin|Marilyn Monroe|Elvis Presley|Michael Jordan|Queen Victoria|Pope John Paul|Barack Obama|Karl Marx
    Microsoft|Apple|Google|IBM|Intel|Nokia|Sony|Toyota|Honda|Ford|BMW|Fiat|Boeing|Airbus|Samsung|Nintendo|Disney
    Coca-Cola|Volkswagen|General Motors|Deutsche Bank|the New York Times|the BBC|NBC|CNN|Facebook|YouTube|Wikipedia
    iPhone|PlayStation|Windows|Linux|Boeing 747|Ford Mustang|Star Wars|Star Trek|Hamlet|the Bible|the Titanic
    Harry Potter|Romeo and Juliet|The Godfather|Sesame Street|The Simpsons|Sherlock Holmes|Superman|Mickey Mouse
    the United Nations|the Red Cross|the Olympic Games|the World Cup|Manchester United|Real Madrid|the Beatles
    Christmas|Monday|January|the Renaissance|World War II|English|Spanish|Arabic|Latin|Buddhism|Islam|Christianity
    """.replace("\n", "|").split("|")
)
"""Well-known names, some with an article."""

NAMES = tuple(name.strip() for name in NAMES if name.strip())

_FIRST = ("The", "Another", "Maria", "North", "Old", "Peter van", "New", "Royal")
"""What may stand before the last word of a name."""


def other_names(subject: str) -> list[str]:
    """The well-known names that are neither the subject nor a part of it, nor hold it."""
    told = subject.lower()
    return [name for name in NAMES if name.lower() not in told and told not in name.lower()]


def namesakes(subject: str) -> list[str]:
    """Other names with the subject's last word; none for a subject of one word."""
    words = subject.split()
    if len(words) < 2:
        return []
    made = [f"{first} {words[-1]}" for first in _FIRST]
    return [name for name in made if not subject.lower().endswith(name.lower())]
