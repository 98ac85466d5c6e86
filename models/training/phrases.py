"""Sentences of our own for the training corpus: greetings, replies of a voice assistant, commands, times and numbers.

Everything is spelled out in words (no digits), because the corpus pairs what is heard with what is written.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from num2words import num2words


def _phrases(text: str) -> list[str]:
    """The phrases of `text`, one between bars or line ends."""
    return text.replace("\n", "|").split("|")


WORDS = _phrases("""yes|no|stop|go|wait|up|down|left|right|on|off|one|two|three|four|five|six|seven|eight|nine|ten|zero
hello|goodbye|bye|thanks|okay|sure|maybe|please|help|cancel|repeat|continue|pause|play|louder|quieter|next|previous
again|back|forward|open|close|start|finish|follow|learn|visual|happy|house|bird|cat|dog|tree|bed|marvel|sheila|wow
black|white|red|green|blue|yellow|orange|music|lights|weather|timer|alarm|taxi|coffee|kitchen|bedroom|window|door
today|tomorrow|tonight|yesterday|monday|tuesday|wednesday|thursday|friday|saturday|sunday|january|february|march
april|may|june|july|august|september|october|november|december|spring|summer|autumn|winter|north|south|east|west""")
SHORT = _phrases("""good morning|good evening|good night|good afternoon|thank you|thank you very much|you are welcome
see you later|see you tomorrow|of course|no problem|not now|not yet|try again|turn it on|turn it off|turn around
come here|go back|how are you|i am fine|excuse me|i am sorry|never mind|that is right|that is wrong|wait a moment
one moment please|who is there|what is this|where am i|slow down|speed up|read it again|say that again|i do not know
i think so|happy birthday|welcome home|well done|take care|have a nice day|have a safe trip|what a lovely day
leave me alone|are you ready|let us go|hold the line|keep going|call me back|as you wish|all right then|just a second
here you are""")
NAMES = _phrases(
    "anna|ben|clara|david|emma|felix|grace|henry|isla|jack|kate|liam|mia|noah|olivia|peter|rose|sam|tom|zoe"
)
PLACES = _phrases("""the airport|the station|the hospital|the harbour|the old town|the city centre|the library
the museum|the market|the hotel|the office|the school|the theatre|the beach|the park|the bank|the bakery
the post office""")
THINGS = _phrases("""taxi|order|parcel|table|room|ticket|flight|train|bus|appointment|meeting|reservation|delivery|pizza
package|prescription|invoice|payment|refund|repair""")
ROOMS = _phrases("kitchen|bedroom|bathroom|hallway|garage|garden|office|basement|nursery|attic")
DEVICES = _phrases("""lights|heating|fan|television|radio|vacuum cleaner|washing machine|oven|coffee machine|door|blinds
alarm|sprinkler|speaker""")
DRINKS = _phrases("""coffee|tea|latte|cappuccino|espresso|hot chocolate|orange juice|glass of water|lemonade|smoothie
iced tea|flat white""")
SIZES = _phrases("small|medium|large|extra large|double")
MILKS = _phrases("oat milk|soy milk|almond milk|whole milk|no sugar|extra cream|two sugars|cinnamon on top")
WEATHER = _phrases("sunny|cloudy|rainy|windy|foggy|snowy|stormy|warm|cold|freezing|humid|dry|mild")
DAYS = WORDS[WORDS.index("monday") : WORDS.index("sunday") + 1]
MONTHS = WORDS[WORDS.index("january") : WORDS.index("december") + 1]
GENRES = _phrases("jazz|rock|classical|folk|blues|pop|country|opera|soul|reggae|techno")


def sentences(seed: int) -> Iterator[str]:
    """An endless, repeatable stream; the single words and set phrases come first, repeats are the caller's to drop."""
    rng = random.Random(seed)
    yield from WORDS
    yield from SHORT
    pick = rng.choice

    def number(most: int) -> str:
        return str(num2words(rng.randrange(most))).replace(",", "")

    def time() -> str:
        hour = str(num2words(rng.randint(1, 12)))
        forms = [
            f"{hour} o'clock",
            f"half past {hour}",
            f"quarter to {hour}",
            f"quarter past {hour}",
            f"{hour} {pick(['fifteen', 'thirty', 'forty five', 'twenty', 'oh five', 'ten'])} {pick(['a m', 'p m'])}",
            f"{hour} in the {pick(['morning', 'afternoon', 'evening'])}",
        ]
        return pick(forms)

    def date() -> str:
        return f"{pick(DAYS)}, {pick(MONTHS)} {num2words(rng.randint(1, 31), to='ordinal')}"

    def digits(n: int) -> str:
        return " ".join(str(num2words(rng.randrange(10))) for _ in range(n))

    makers: list[Callable[[], str]] = [
        lambda: f"Your {pick(THINGS)} is on its way.",
        lambda: f"Your {pick(THINGS)} will arrive at {time()}.",
        lambda: f"Your {pick(THINGS)} is ready for {pick(NAMES)}.",
        lambda: f"I have booked a {pick(['table', 'room', 'taxi'])} for {number(13)} at {time()}.",
        lambda: f"{pick(['Hello', 'Hi', 'Good morning', 'Good evening'])}, {pick(NAMES)}, how can I help you today?",
        lambda: f"{pick(['Sorry', 'Excuse me', 'Pardon'])}, I did not understand that, please say it again.",
        lambda: f"Turn {pick(['on', 'off', 'up', 'down'])} the {pick(DEVICES)} in the {pick(ROOMS)}.",
        lambda: f"The {pick(DEVICES)} in the {pick(ROOMS)} is {pick(['on', 'off', 'open', 'closed', 'broken'])}.",
        lambda: f"{pick(['Set', 'Cancel', 'Change'])} the alarm for {time()}.",
        lambda: f"Set a timer for {number(60)} minutes.",
        lambda: f"It is {time()}.",
        lambda: f"Today is {date()}.",
        lambda: f"Remind me on {date()} to call {pick(NAMES)}.",
        lambda: f"I would like a {pick(SIZES)} {pick(DRINKS)} with {pick(MILKS)}, please.",
        lambda: f"One {pick(SIZES)} {pick(DRINKS)} and two {pick(DRINKS)}s.",
        lambda: f"{pick(['Tomorrow', 'Today', 'Tonight'])} will be {pick(WEATHER)} with {number(40)} degrees.",
        lambda: f"Will it be {pick(WEATHER)} near {pick(PLACES)} on {pick(DAYS)}?",
        lambda: f"Take me to {pick(PLACES)}.",
        lambda: f"How far is it to {pick(PLACES)} from {pick(PLACES)}?",
        lambda: f"The next {pick(['bus', 'train', 'tram', 'ferry'])} to {pick(PLACES)} leaves in {number(60)} minutes.",
        lambda: f"The total is {number(200)} {pick(['dollars', 'pounds', 'euros'])} and {number(100)} cents.",
        lambda: f"Your balance is {number(100000)} {pick(['dollars', 'pounds', 'euros'])}.",
        lambda: f"Your code is {digits(rng.randint(3, 6))}.",
        lambda: digits(rng.randint(2, 7)),
        lambda: number(1000),
        lambda: number(1000000),
        time,
        date,
        lambda: f"play some {pick(GENRES)}",
        lambda: f"Play {pick(GENRES)} music in the {pick(ROOMS)}, but not too loud.",
        lambda: f"call {pick(NAMES)}",
        lambda: f"Send {pick(NAMES)} a message that I will be {number(40)} minutes late.",
        lambda: f"{pick(NAMES)} and {pick(NAMES)} are waiting at {pick(PLACES)}.",
        lambda: f"{pick(['volume', 'brightness', 'temperature', 'speed'])} {number(100)} percent",
        lambda: f"{pick(['Yes', 'No'])}, {pick(SHORT)}.",
        lambda: f"{pick(SHORT)}, {pick(NAMES)}.",
        lambda: f"{pick(WORDS)} {pick(WORDS)}",
        lambda: f"{pick(WORDS)}, {pick(WORDS)}, {pick(WORDS)}",
        lambda: f"Gate {number(60)}, seat {number(40)} {pick(list('abcdef'))}.",
        lambda: f"My room number is {digits(3)} and my name is {pick(NAMES)}.",
        lambda: f"Please hold, the next free agent will be with you in {number(20)} minutes.",
        lambda: f"Press {number(10)} for {pick(THINGS)}s, or {number(10)} to hear the choices again.",
    ]
    while True:
        yield pick(makers)()
