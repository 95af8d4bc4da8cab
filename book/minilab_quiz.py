"""Questions with choices, each with an explanation of its own, that need neither script nor kernel.

    ```{quiz}
    How many bits are in a byte?

    - Four.

      No. That is a nibble.
    - Eight.

      Yes. A byte has the values 0 to 255.
    ```

A choice is a <details> element: it opens by mouse or keyboard and shows whether it is right, and why. What comes first
in an explanation, Yes or No, says it in words, on paper and aloud as well.
"""

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

VERDICTS = ("Yes.", "No.")


class quiz(nodes.General, nodes.Element):
    """A question and its choices."""


class choice(nodes.General, nodes.Element):
    """An answer and its explanation, to be opened."""


class answer(nodes.General, nodes.TextElement):
    """What is read before a choice is opened."""


class Quiz(SphinxDirective):
    has_content = True

    def run(self):
        parsed = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, parsed)
        try:
            question, choices = parts(parsed)
        except ValueError as error:
            raise self.error(f"quiz: {error}") from None
        question[0]["ids"].append(f"quiz-{self.env.new_serialno('quiz')}")
        return [quiz("", *question, *choices, asked=question[0]["ids"][0])]


def parts(parsed: nodes.Element) -> tuple[list[nodes.Node], list[choice]]:
    """The question's paragraphs and the choices. Raises ValueError if it is no question that can be answered."""
    *question, offered = parsed.children or [nodes.paragraph()]
    if not question or not isinstance(offered, nodes.bullet_list) or len(offered) < 3:
        raise ValueError("a question is a paragraph, then a list of at least three choices")
    choices = []
    for item in offered:
        if len(item) < 2 or not item[1].astext().startswith(VERDICTS):
            raise ValueError(f"{item.astext()!r} is not followed by a paragraph that begins with Yes. or No.")
        said, *explanation = item.children
        right = explanation[0].astext().startswith(VERDICTS[0])
        choices.append(choice("", answer("", "", *said.children), *explanation, classes=["right"] if right else []))
    if sum("right" in made["classes"] for made in choices) != 1:
        raise ValueError("one of the choices must be right, and only one")
    return question, choices


def visit_quiz(translator, node):
    translator.body.append(
        translator.starttag(node, "div", CLASS="quiz", role="group", **{"aria-labelledby": node["asked"]})
    )


def visit_choice(translator, node):
    translator.body.append(translator.starttag(node, "details"))


def visit_answer(translator, node):
    translator.body.append(translator.starttag(node, "summary", ""))


def depart(tag: str):
    return lambda translator, node: translator.body.append(f"</{tag}>\n")


def setup(app):
    app.add_directive("quiz", Quiz)
    app.add_node(quiz, html=(visit_quiz, depart("div")))
    app.add_node(choice, html=(visit_choice, depart("details")))
    app.add_node(answer, html=(visit_answer, depart("summary")))
    app.add_css_file("quiz.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
