"""Languages that share their letters are told by their commonest words: the first article of the
Universal Declaration of Human Rights in each, and what no word gives away."""

import pytest

from langue.text.quality import script
from langue.text.quality.language import guess

ARTICLES = {
    "English": (
        "All human beings are born free and equal in dignity and rights. They are endowed with"
        " reason and conscience and should act towards one another in a spirit of brotherhood."
    ),
    "German": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und"
        " Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen."
    ),
    "French": (
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de"
        " raison et de conscience et doivent agir les uns envers les autres dans un esprit de"
        " fraternité."
    ),
    "Spanish": (
        "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como"
        " están de razón y conciencia, deben comportarse fraternalmente los unos con los otros."
    ),
    "Portuguese": (
        "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão"
        " e de consciência, devem agir uns para com os outros em espírito de fraternidade."
    ),
    "Italian": (
        "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di"
        " ragione e di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza."
    ),
    "Dutch": (
        "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd"
        " met verstand en geweten, en behoren zich jegens elkander in een geest van broederschap te"
        " gedragen."
    ),
    "Swedish": (
        "Alla människor är födda fria och lika i värde och rättigheter. De är utrustade med förnuft"
        " och samvete och bör handla gentemot varandra i en anda av broderskap."
    ),
    "Finnish": (
        "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on"
        " annettu järki ja omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä."
    ),
    "Polish": (
        "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni"
        " obdarzeni rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa."
    ),
    "Hungarian": (
        "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek, ésszel"
        " és lelkiismerettel bírván, egymással szemben testvéri szellemben kell hogy viseltessenek."
    ),
    "Turkish": (
        "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana"
        " sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler."
    ),
    "Indonesian": (
        "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama. Mereka"
        " dikaruniai akal dan hati nurani dan hendaknya bergaul satu sama lain dalam semangat"
        " persaudaraan."
    ),
    "Vietnamese": (
        "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi. Mọi con"
        " người đều được tạo hóa ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình"
        " bằng hữu."
    ),
    "Russian": (
        "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом"
        " и совестью и должны поступать в отношении друг друга в духе братства."
    ),
    "Ukrainian": (
        "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом"
        " і совістю і повинні діяти у відношенні один до одного в дусі братерства."
    ),
    "Bulgarian": (
        "Всички хора се раждат свободни и равни по достойнство и права. Те са надарени с разум и"
        " съвест и следва да се отнасят помежду си в дух на братство."
    ),
    "Arabic": (
        "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميراً وعليهم أن"
        " يعامل بعضهم بعضاً."
    ),
    "Persian": (
        "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند. همه دارای عقل و"
        " وجدان هستند."
    ),
    "Hindi": ("सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।"),
    "Chinese": "人人生而自由，在尊严和权利上一律平等。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
}


@pytest.mark.parametrize("language", ARTICLES)
def test_a_sentence_is_enough(language):
    text = ARTICLES[language]
    assert guess(text, script.count(text)) == language


@pytest.mark.parametrize(
    "text", ["Köln, Berlin, München", "x = y + z", "a e o", "lorem ipsum dolor sit amet"]
)
def test_what_no_word_gives_away_is_left_open(text):
    assert guess(text, script.count(text)) == "written in Latin letters"


def test_a_text_of_two_languages_is_of_neither():
    text = ARTICLES["English"] + ARTICLES["Russian"]
    assert guess(text, script.count(text)) == "several"
