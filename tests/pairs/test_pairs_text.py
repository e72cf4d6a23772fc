from raysberta.pairs.text import cut, name_words, normalise


def test_cut_ends_at_the_last_sentence_that_fits():
    text = "Первое предложение. Второе, подлиннее! Третье уже не влезает."
    assert cut(text, 45) == "Первое предложение. Второе, подлиннее!"
    assert cut(text, 38) == "Первое предложение. Второе, подлиннее!"
    assert cut(text, 37) == "Первое предложение."
    assert cut(text, 1000) == text


def test_cut_without_a_sentence_end_takes_whole_words_then_characters():
    assert cut("одно длинное слово без точки", 14) == "одно длинное"
    assert cut("сверхдлинноеслово", 5) == "сверх"
    assert cut('Он сказал: "Да." И ушёл.', 17) == 'Он сказал: "Да."'


def test_a_dot_inside_a_number_ends_no_sentence():
    assert cut("Версия 3.14159 вышла вчера вечером", 20) == "Версия 3.14159 вышла"


def test_names_become_words():
    assert name_words("pandas.core.MultiIndex.get_loc") == "pandas core multi index get loc"
    assert name_words("numpy.linalg.linalg.HTTPServer2Go") == "numpy linalg http server2 go"


def test_normalise_joins_what_reads_the_same():
    assert normalise("  Ёлка\n СТОИТ ") == normalise("ёлка стоит")
