"""Guesses the language of a text, given the number of its characters in each script.

A script that is used by nearly one language only determines it (script.py). Latin, Cyrillic, Arabic
and Devanagari letters are shared by many languages: these are distinguished by their most frequent
words, as with a stop list (Grefenstette 1995). A few words are enough for a sentence, none for a
name; if the evidence is insufficient, the language is reported as unknown rather than guessed.
"""

import re
from collections import Counter
from collections.abc import Mapping

from langue.text.quality import script

READ = 4000  # number of characters examined
# minimum score of a language: absolute, as a share of all words, and relative to the next language
LEAST = 1.5
SHARE = 0.06
LEAD = 1.15
_WORDS = {
    "Latin": {
        "English": (
            "the of and to in is that it was for with as his on be at by this had not are but from"
            " they you"
        ),
        "German": (
            "der die das und in den von zu mit sich ist nicht ein eine des dem auf für im als auch"
            " es an er so"
        ),
        "French": (
            "de la le et les des en un une du dans est que qui il pour pas sur par au ce ne se plus"
            " avec sont"
        ),
        "Spanish": (
            "de la que el en y a los se del las un por con no una su para es al lo como más o pero"
            " sus fue está"
        ),
        "Portuguese": (
            "de a o que e do da em um para é com não uma os no se na por mais as dos ao das à"
            " são foi"
        ),
        "Italian": (
            "di e il la che in un a per è una sono con non si da del le dei nel alla della come più"
            " gli anche"
        ),
        "Catalan": (
            "de la i el que a les en els un per una del amb no és es dels al com ha més va però són"
            " seva"
        ),
        "Romanian": (
            "de și în a la cu pe o din că un nu se care pentru este mai au fost ce sau prin sunt"
            " lui al ale"
        ),
        "Dutch": (
            "de van het een en in is dat op te zijn met voor niet aan er die om ook als dan maar"
            " bij uit was naar"
        ),
        "Swedish": (
            "och i att det som en på är av för med den till inte har de ett om han var jag men från"
            " så sig"
        ),
        "Danish": (
            "og i at det er en til af på som med for den der ikke de et har af fra jeg men var sig"
            " kan blev"
        ),
        "Norwegian": (
            "og i det at er en på som til av for med den ikke de et har om fra jeg men var seg ble"
            " kan også"
        ),
        "Finnish": (
            "ja on ei että se oli hän en mutta kun ovat joka myös niin kuin mitä ole sen tai jo"
            " hänen vain olla"
        ),
        "Polish": (
            "i w na z nie się do to że jest o jak po a od za przez co ale dla był tym są jego który"
            " oraz"
        ),
        "Czech": (
            "a v se na je že s z do to o i ve by pro si jako ale jsem za po tak jeho byl které nebo"
            " jsou"
        ),
        "Hungarian": (
            "a az és hogy nem is egy ez meg van volt csak de ha mint már még el kell vagy azt volna"
            " ki lesz"
        ),
        "Turkish": (
            "ve bir bu da de için ile çok olarak daha o gibi ne kadar olan ama en sonra değil var"
            " her mi ben"
        ),
        "Indonesian": (
            "yang dan di dengan untuk dari ini itu dalam tidak pada ke adalah akan oleh ada juga"
            " saya karena"
        ),
        "Vietnamese": (
            "và của là có không một các cho được trong những người với đã này đến khi để tôi từ như"
            " ở ra"
        ),
    },
    "Cyrillic": {
        "Russian": (
            "и в не на что он с как это по но из у за от был его для все так то же бы только она"
            " мы к я"
        ),
        "Ukrainian": (
            "і в не на що з як це та до у за але від його для він було був ще або її вони так бо"
            " через про"
        ),
        "Bulgarian": (
            "и на да в се от за не по е са със като че до си но той ще беше към която който при или"
            " го това"
        ),
        "Serbian": (
            "и у је да се на за од су са као не то али који која по што из би њ био није или већ до"
            " само"
        ),
    },
    "Arabic": {
        "Arabic": (
            "في من على إلى أن هذا التي عن مع كان هذه ما لا الذي بعد كل لم بين ذلك أو قد كانت حتى و"
        ),
        "Persian": (
            "و در به از که این را با است برای آن یک تا خود بر شد می هم او شده های ما اما نیز"
            " بود کرد"
        ),
        "Urdu": (
            "کے کی میں ہے اور سے کا کو اس نے ہیں پر کہ یہ بھی ایک تھا کر لیے نہیں ہو تو وہ جو گیا"
        ),
    },
    "Devanagari": {
        "Hindi": "के में है की और से का को पर यह इस एक ने कि भी हैं लिए नहीं तो था ही जो कर गया वह",
        "Marathi": ("आहे आणि या च्या हे ते होते एक व हा ही मध्ये आहेत त्या केले नाही होता असे त्यांनी साठी मात्र"),
        "Nepali": ("छ र को मा लाई पनि छन् यो गर्न गरेको भएको हुन्छ थियो एक भने छैन तर उनी गर्ने हो यस"),
    },
}
_SPLIT = re.compile(r"[\s\d.,;:!?()\[\]\"'’‘“”«»„\-–—…،؛؟।/]+")


def _weights(lists: Mapping[str, str]) -> dict[str, list[tuple[str, float]]]:
    """Return the languages of each word with its weight for each, which is smaller for words of
    several languages.
    """
    sets = {language: set(words.split()) for language, words in lists.items()}
    shared = Counter(word for words in sets.values() for word in words)
    return {
        word: [(name, 1 / shared[word]) for name, words in sets.items() if word in words]
        for word in shared
    }


_TELLING = {name: _weights(lists) for name, lists in _WORDS.items()}


def guess(text: str, counts: Mapping[str, int]) -> str:
    """Return the language of a text; counts: the result of `script.count` for it."""
    said = script.language(counts)
    telling = _TELLING.get(script.main(counts))
    if telling is None or not said.startswith("written in"):
        return said
    words = [word for word in _SPLIT.split(text[:READ].lower()) if word]
    scores = {"": 0.0, said: 0.0}
    for word in words:
        for language, weight in telling.get(word, ()):
            scores[language] = scores.get(language, 0.0) + weight
    first, second = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
    least = max(LEAST, SHARE * len(words), LEAD * scores[second])
    return first if scores[first] >= least else said
