"""What is kept of a cell's outputs: so much and no more, nothing that a browser would run, nothing that tells how it is tested."""

import re

KEPT = {"text/plain", "text/latex", "image/png", "image/jpeg"}  # no HTML, no JavaScript: an instructor's browser shows what is left


def recorder(notebook, limit_kb):
    """An nbclient for cells of `notebook` that keeps the first `limit_kb` of each cell's output, and none that a browser would run."""
    from nbclient import NotebookClient

    class Recorder(NotebookClient):
        flood, errors = 0, 0

        def process_message(self, msg, cell, cell_index):
            """Here, not in `output`: an update of something shown earlier goes another way."""
            content = msg["content"]
            if "data" in content:
                content["metadata"] = {}  # the width of a picture becomes text of the page
                content["data"] = {kind: value for kind, value in content["data"].items() if kind in KEPT and _harmless(kind, value)}
            if msg["msg_type"] == "stream":
                content["name"] = "stderr" if content.get("name") == "stderr" else "stdout"
            return super().process_message(msg, cell, cell_index)

        def output(self, outs, msg, display_id, cell_index):
            content = msg["content"]
            size = len(content.get("text", "")) + sum(len(str(value)) for value in content.get("data", {}).values())
            before, self.flood = self.flood, self.flood + size
            if msg["msg_type"] == "error":
                self.errors += 1
                content |= {"ename": str(content.get("ename"))[:200], "evalue": str(content.get("evalue"))[:2000],
                            "traceback": ["\n".join(map(str, content.get("traceback", [])))[-20_000:]]}
                return super().output(outs, msg, display_id, cell_index) if self.errors <= 3 else None
            if self.flood <= limit_kb * 1024:
                return super().output(outs, msg, display_id, cell_index)
            if before <= limit_kb * 1024:
                msg["content"] = {"name": "stdout", "text": content.get("text", "")[:1000] + f"\n... the rest of this cell's output is left out (limit {limit_kb} kB)\n"}
                msg["msg_type"] = msg["header"]["msg_type"] = "stream"
                return super().output(outs, msg, display_id, cell_index)
            return None

        def handle_comm_msg(self, outs, msg, cell_index):
            return None

    return Recorder(notebook, allow_errors=True, coalesce_streams=True, store_widget_state=False)


def _harmless(kind, value):
    """Whether a picture is one: letters of base64, which end no attribute of a page."""
    return isinstance(value, str) and (not kind.startswith("image/") or re.fullmatch(r"[\w+/=\s]*", value, re.ASCII) is not None)


def veiled(value, hidden):
    """The same, of texts, lists and dicts, with "..." for whatever `hidden` finds; pictures are left alone."""
    if isinstance(value, str):
        return hidden.sub("...", value)
    if isinstance(value, list):
        return [veiled(item, hidden) for item in value]
    if isinstance(value, dict):
        return type(value)({key: item if str(key).startswith("image/") else veiled(item, hidden) for key, item in value.items()})
    return value


def error(name, message):
    from nbformat.v4 import new_output

    return new_output("error", ename=name, evalue=message, traceback=[message])


def plain(outputs, state, message):
    """The outputs of a check cell as nbgrader must read them: nothing that counts as a partial grade or, being a warning, as a failure."""
    from nbformat.v4 import new_output

    found = []
    for output in outputs:
        if output.output_type == "stream":
            found.append(new_output("stream", name="stdout", text=output.text))
        elif output.output_type in ("display_data", "execute_result"):
            found.append(new_output("display_data", data=output.data))
    name, _, text = message.partition(": ")
    return [*found, error(name, text or name)] if state != "ok" else found
