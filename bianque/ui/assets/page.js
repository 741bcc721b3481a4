// What only the browser can do: the address, storage, the clipboard, files, the keyboard, the scroll, the outer page.
// Loaded before gradio; gradio's events call the functions of `window.bianque`. Asks no other host for anything.
window.bianque = (() => {
  "use strict";
  const MOST_KEPT = 20;
  const MOST_KEPT_BYTES = 3000000; // browsers give about 5 million characters, and the stored form is a third longer
  const LARGEST_FILE_BYTES = 2000000;
  const PAUSE_MS = 2000; // between two savings of one reply
  const SKIP = { __type__: "update" };
  const OPTIONS = ["mode", "top_p", "temperature", "max_new_tokens", "seed", "greedy", "asking_limit"];

  // ------------------------------------------------------------------ address: language, theme, compact view

  const params = new URLSearchParams(location.search);
  const language = params.get("lang");
  if (language === "zh" || language === "en") {
    // gradio takes its labels by the browser's language, and has no other switch for it.
    const name = language === "zh" ? "zh-CN" : "en";
    Object.defineProperty(navigator, "language", { get: () => name, configurable: true });
    Object.defineProperty(navigator, "languages", { get: () => [name], configurable: true });
  }
  const theme = params.get("theme");
  if ((theme === "light" || theme === "dark") && !params.has("__theme")) {
    params.set("__theme", theme);
    history.replaceState(null, "", `?${params}`);
  }
  const isCompact = params.get("embed") === "1";
  if (isCompact) document.documentElement.classList.add("bq-embed");

  // ------------------------------------------------------------------ storage, where a browser denies it

  for (const name of ["localStorage", "sessionStorage"]) {
    try {
      window[name].getItem("bianque");
    } catch {
      const values = new Map();
      const storage = {
        getItem: (key) => (values.has(key) ? values.get(key) : null),
        setItem: (key, value) => void values.set(key, String(value)),
        removeItem: (key) => void values.delete(key),
        clear: () => values.clear(),
        key: (index) => [...values.keys()][index] ?? null,
        get length() {
          return values.size;
        },
      };
      Object.defineProperty(window, name, { value: storage, configurable: true });
    }
  }

  // ------------------------------------------------------------------ what comes before the visitor's hands

  // A page comes in steps: what everybody sees first, then the conversation and the settings of this visitor. Until the
  // last has come, the settings cannot be touched, and what is pressed beside the conversation is done afterwards: done
  // at once, it would go on from a page that is about to be replaced. A change of mode holds things up in the same way
  // until its settings have come.
  let isArriving = true;
  let numChoosing = 0;
  let pressed = null; // what is to be done afterwards
  let draft = ""; // was in the box when the connection was lost
  let typed = ""; // has been typed while the page came
  const isHeld = () => isArriving || numChoosing > 0;
  const box = () => document.querySelector("#message textarea");
  const join = (parts) => parts.filter((part) => part && part.trim()).join("\n");

  function hold() {
    document.documentElement.classList.toggle("bq-held", isHeld());
    document.getElementById("side")?.toggleAttribute("inert", isArriving);
    document.getElementById("settings")?.toggleAttribute("inert", isHeld());
    if (isHeld() || !pressed) return;
    setTimeout(pressed); // once gradio has shown what came last
    pressed = null;
  }

  const press = (button) => button?.isConnected && button.checkVisibility() && button.click();

  window.addEventListener(
    "click",
    (event) => {
      const button = isHeld() && event.target.closest?.("#main button");
      if (!button) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      pressed = () => press(button);
    },
    true
  );
  window.addEventListener(
    "input",
    (event) => {
      if (isArriving && event.target === box()) typed = event.target.value;
    },
    true
  );

  // The words for the box once the page has come: what came with it, what was lost, what was typed meanwhile.
  function words(shown) {
    const isThere = shown === typed || draft.includes(shown || ""); // a link's question is asked for again
    const all = join([isThere ? "" : shown, draft, typed]);
    draft = typed = "";
    return !all || all === shown ? SKIP : all; // nothing to add, or blanks only
  }

  function choosing(...values) {
    numChoosing += 1;
    hold();
    return values;
  }

  function chosen(...values) {
    numChoosing = Math.max(0, numChoosing - 1);
    given = values;
    hold();
    return [];
  }

  // All settings as they stand, in the order of `OPTIONS`, and whether the visitor has touched one of them.
  let settings = null;
  let isTouched = false;
  function note(...values) {
    settings = values;
    return [];
  }

  function touch() {
    isTouched = true;
    return [];
  }

  function putOptions(address, values) {
    OPTIONS.forEach((option, index) => {
      const value = values[index];
      if (value === "" || value === null || value === undefined || value === false) address.delete(option);
      else address.set(option, String(value));
    });
    return address;
  }

  // What the sliders were given last. Once the models are there their defaults come, for a slider that still stands so.
  let given = null;
  function settle(offered, mode, ...values) {
    if (!offered || offered.mode !== mode) return values.map(() => SKIP);
    const old = given || values;
    given = offered.values;
    return values.map((value, index) => (value === old[index] ? offered.values[index] : SKIP));
  }

  function standing(...values) {
    given = values;
    return touch(); // called when the visitor has asked for the defaults
  }

  // ------------------------------------------------------------------ conversations kept in this browser

  const EMPTY = { keep: false, list: [] };
  const newId = () => `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;
  let current = sessionStorage.getItem("bianque.id") || newId();
  let origin = null; // what this conversation was called in another tab, before both went on by themselves
  let latest = null; // what the page shows, for after a lost connection
  let savedAt = 0;
  let isOpening = false; // a file: what comes next is a conversation of its own
  let incoming = []; // what other tabs have changed since this one wrote
  let channel = null;
  try {
    // Each tab holds the whole list, so what one writes the others must know before they write.
    channel = new BroadcastChannel("bianque");
    channel.onmessage = ({ data }) => {
      if (data.kind === "claim") {
        if (data.id === current) channel.postMessage({ kind: "held", id: current });
        return;
      }
      if (data.id === current && data.kind !== "drop") part();
      if (data.kind === "held") return;
      incoming = [...incoming.filter((change) => !data.id || change.id !== data.id), data];
    };
  } catch {
    channel = null;
  }

  // After a lost connection gradio asks for the server's id until it answers, and then loads the page anew. Only for
  // this load are the conversation and the words in the box put down, in the tab's own storage, whether or not the
  // visitor lets it be kept. They stay there until the page has them: it may be lost again before.
  let isLost = false;
  const ask = window.fetch.bind(window);
  window.fetch = (resource, ...rest) => {
    isLost = isLost || /\/app_id$/.test(String(resource?.url || resource));
    return ask(resource, ...rest);
  };
  window.addEventListener("pagehide", () => {
    if (!isLost) return;
    // A page that is lost before it has its conversation holds what it was to begin with.
    const unsent = join(isArriving ? [draft, typed] : [box()?.value]);
    const changed = isTouched ? settings : null;
    const conversation = latest && changed ? { ...latest, mode: changed[0] } : latest;
    try {
      sessionStorage.setItem("bianque.lost", JSON.stringify({ conversation, draft: unsent, settings: changed }));
    } catch {
      // denied or full
    }
  });
  try {
    const lost = JSON.parse(sessionStorage.getItem("bianque.lost"));
    latest = lost?.conversation || null;
    draft = lost?.draft || "";
    if (latest) current = latest.id;
    // They come back as a link brings them.
    if (lost?.settings) history.replaceState(null, "", `?${putOptions(params, lost.settings)}`);
  } catch {
    latest = null;
  }

  const tell = (change) => channel && channel.postMessage(change);

  // Browsers copy the tab's storage, and with it the name of its conversation, into a duplicate of the tab or one that
  // it opens; a kept conversation can be opened in two tabs as well. Who comes later asks, and is told if another tab
  // has it. From then on, what is said here is a conversation of its own. A tab that was asleep and could not tell
  // notices at the latest when the other one writes.
  const claim = () => tell({ kind: "claim", id: current });

  function part() {
    origin = current;
    current = newId();
    if (latest) latest = { ...latest, id: current };
  }

  claim();
  const upsert = (list, one) => [one, ...list.filter((other) => other.id !== one.id)];

  function apply(store) {
    let { keep, list } = store || EMPTY;
    for (const change of incoming) {
      if (change.kind === "put") list = upsert(list, change.conversation);
      if (change.kind === "drop") list = list.filter((one) => one.id !== change.id);
      if (change.kind === "keep") keep = change.keep;
      if (!keep) list = [];
    }
    return { keep, list };
  }

  function fit(list) {
    let kept = list.slice(0, MOST_KEPT);
    const size = () => new TextEncoder().encode(JSON.stringify(kept)).length;
    while (kept.length > 1 && size() > MOST_KEPT_BYTES) kept = kept.slice(0, -1);
    return kept;
  }

  const plain = (content) =>
    typeof content === "string" ? content : (content || []).map((part) => part.text || "").join("\n");

  function snapshot(older, chat, mode) {
    const messages = [...(older || []), ...(chat || [])].map(({ role, content, metadata }) => ({
      role,
      content: plain(content),
      metadata: { id: metadata?.id, title: metadata?.title, log: metadata?.log },
    }));
    const isPending = Boolean(chat?.length && chat[chat.length - 1].metadata?.status === "pending");
    const first = messages.find((message) => message.role === "user");
    return { id: current, title: first ? first.content.slice(0, 40) : "", time: Date.now(), mode, isPending, messages };
  }

  const titles = (store) => ({
    ...SKIP,
    choices: store.list.map((one) => [`${one.title} · ${new Date(one.time).toLocaleString()}`, one.id]),
    value: store.list.some((one) => one.id === current) ? current : null,
  });

  // Only what is written holds the changes of other tabs; until then they are looked at each time.
  function write(store) {
    incoming = [];
    sessionStorage.setItem("bianque.id", current);
    return [store, titles(store)];
  }

  // Called before the page loads what a visitor sees first, which must not replace what was kept.
  function loading(...values) {
    isArriving = true;
    hold();
    return values;
  }

  function restore(_, saved) {
    const store = apply(saved);
    const kept = store.keep ? store.list.find((one) => one.id === (origin || current)) || null : null;
    return [latest || kept, null];
  }

  // Called when all has come, or when it failed to: then the page is better used as it is than not at all.
  function restored(saved, shown, ...values) {
    isArriving = false;
    sessionStorage.removeItem("bianque.lost");
    given = values;
    const store = apply(saved);
    const inBox = words(shown);
    hold();
    return [store.keep, titles(store), inBox];
  }

  function remember(older, chat, mode, saved) {
    if (isArriving) return [SKIP, SKIP];
    if (isOpening) begin();
    isOpening = false;
    const conversation = snapshot(older, chat, mode);
    latest = conversation.title ? conversation : null;
    const store = apply(saved);
    if (!store.keep) return [SKIP, SKIP];
    if (!conversation.title) {
      if (!store.list.some((one) => one.id === current)) return [SKIP, SKIP];
      tell({ kind: "drop", id: current });
      return write({ ...store, list: store.list.filter((one) => one.id !== current) });
    }
    const stored = store.list.find((one) => one.id === current) || store.list.find((one) => one.id === origin);
    if (stored && JSON.stringify(stored.messages) === JSON.stringify(conversation.messages)) {
      return [SKIP, titles(store)]; // opened, not changed
    }
    if (conversation.isPending && Date.now() - savedAt < PAUSE_MS && store.list[0]?.id === current) return [SKIP, SKIP];
    savedAt = Date.now();
    return put(conversation, store);
  }

  function put(conversation, store) {
    tell({ kind: "put", id: conversation.id, conversation });
    return write({ ...store, list: fit(upsert(store.list, conversation)) });
  }

  function keep(isWanted, older, chat, mode, saved) {
    const store = { keep: isWanted, list: isWanted ? apply(saved).list : [] };
    tell({ kind: "keep", keep: isWanted });
    if (!isWanted) {
      incoming = [];
      sessionStorage.removeItem("bianque.id");
      return [store, titles(store)];
    }
    const conversation = snapshot(older, chat, mode);
    return conversation.title ? put(conversation, store) : write(store);
  }

  function begin() {
    current = newId();
    origin = null;
    latest = null;
    return [];
  }

  let isOtherMode = false; // whether one was opened whose mode was not chosen, so that its defaults come
  function open(id, saved, mode) {
    const chosen = apply(saved).list.find((one) => one.id === id) || null;
    isOtherMode = Boolean(chosen && chosen.mode !== mode);
    if (chosen) {
      current = id;
      origin = null;
      sessionStorage.setItem("bianque.id", id);
      claim();
    }
    return [chosen, null, mode];
  }

  function opened(...values) {
    if (isOtherMode) given = values;
    return [];
  }

  // Everything: this conversation, those kept, and the agreement to keep them.
  function forget() {
    incoming = [];
    tell({ kind: "keep", keep: false });
    begin();
    sessionStorage.removeItem("bianque.id");
    return [EMPTY, titles(EMPTY), false];
  }

  // ------------------------------------------------------------------ link, files, paper

  // `address` is where everybody finds the page, if it is known; this browser may know it by another name.
  function link(address, question, ...values) {
    const wanted = putOptions(new URLSearchParams(), values);
    for (const name of ["lang", "theme"]) if (params.get(name)) wanted.set(name, params.get(name));
    if (question && question.trim()) wanted.set("q", question.trim());
    return [`${address || location.origin + location.pathname}?${wanted}`];
  }

  function download(file) {
    if (!file) return [];
    const url = URL.createObjectURL(new Blob([file.text], { type: `${file.type};charset=utf-8` }));
    const anchor = document.createElement("a");
    anchor.href = url;
    anchor.download = file.name;
    document.body.append(anchor);
    anchor.click();
    anchor.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    return [];
  }

  function paper(file) {
    if (!file) return [];
    document.getElementById("bq-paper")?.remove();
    const sheet = document.createElement("article");
    sheet.id = "bq-paper";
    sheet.innerHTML = file.text; // made by the server, every word of it escaped
    document.body.append(sheet);
    window.print();
    return [];
  }

  // What draws pictures is loaded when the first is wanted.
  async function picture(file) {
    if (!file) return [];
    if (!window.bianquePicture) {
      await new Promise((resolve, reject) => {
        const script = document.createElement("script");
        Object.assign(script, { src: "bianque/picture.js", onload: resolve, onerror: reject });
        document.head.append(script);
      });
    }
    await window.bianquePicture.show(file);
    return [];
  }

  // Called after a file was opened or refused: then nothing came. What came with one are no defaults.
  function picked(isThere) {
    isOpening = false;
    if (isThere) given = [];
    return isThere ? touch() : [];
  }

  function pick() {
    return new Promise((resolve) => {
      const input = document.createElement("input");
      input.type = "file";
      input.accept = ".json,application/json";
      input.addEventListener("cancel", () => resolve([null]));
      input.addEventListener("change", async () => {
        const file = input.files[0];
        isOpening = Boolean(file);
        // Of a file that is too large only its size is sent. One that cannot be read is none of ours.
        const content = file && file.size <= LARGEST_FILE_BYTES ? file.text().catch(() => "") : file?.size;
        resolve([file ? await content : null]);
      });
      input.click();
    });
  }

  // ------------------------------------------------------------------ keyboard, scroll, clipboard

  // Enter that picks a word of an input method is not meant to send; one that comes too early sends afterwards.
  for (const kind of ["keydown", "keypress"]) {
    window.addEventListener(
      kind,
      (event) => {
        if (event.key !== "Enter") return;
        if (event.isComposing || event.keyCode === 229) event.stopImmediatePropagation();
        else if (isHeld() && !event.shiftKey && event.target === box()) {
          event.preventDefault();
          event.stopImmediatePropagation();
          pressed = () => press(document.querySelector("#message .submit-button"));
        }
      },
      true
    );
  }

  const isAtEnd = (wrap) => wrap.scrollHeight - wrap.scrollTop - wrap.clientHeight < 60;

  // The end of a reply stays in view while it grows, until the reader scrolls up; a new message brings it back.
  function follow(wrap) {
    let isFollowing = true;
    let top = 0;
    let numMessages = 0;
    wrap.addEventListener("scroll", () => {
      if (isAtEnd(wrap)) isFollowing = true;
      else if (wrap.scrollTop < top - 4) isFollowing = false;
      top = wrap.scrollTop;
    });
    // Messages also grow by themselves, while gradio slides them open. A chat that was empty has new parts afterwards.
    const resized = new ResizeObserver(() => isFollowing && (wrap.scrollTop = wrap.scrollHeight));
    const watched = new WeakSet();
    const watch = (part) => {
      if (watched.has(part)) return;
      watched.add(part);
      resized.observe(part);
    };
    const grow = () => {
      [wrap, ...wrap.children].forEach(watch);
      // Content that shrinks pulls the end up by itself; that is not the reader.
      if (wrap.scrollTop < top - 4 && !isAtEnd(wrap)) isFollowing = false;
      const messages = wrap.querySelectorAll(".user-row").length;
      if (messages > numMessages) isFollowing = true;
      numMessages = messages;
      if (isFollowing) wrap.scrollTop = wrap.scrollHeight;
      top = wrap.scrollTop;
    };
    new MutationObserver(grow).observe(wrap, { childList: true, subtree: true, characterData: true });
    grow();
  }

  // What the copy buttons copy begins with the line that says who wrote a reply; a reader wants the words.
  if (navigator.clipboard?.writeText) {
    const writeText = navigator.clipboard.writeText.bind(navigator.clipboard);
    navigator.clipboard.writeText = (text) => {
      const names = [...document.querySelectorAll("#chat .thought-group > .title .md")].map((name) => name.innerText.trim());
      const [first, ...rest] = text.split("\n");
      return writeText(rest.length && names.includes(first.trim()) ? rest.join("\n").trimStart() : text);
    };
  }

  // ------------------------------------------------------------------ labels

  // What gradio calls these in every language. The number and the slider beside it are named by their label alone.
  const names = bianqueWords[navigator.language.startsWith("zh") ? "zh" : "en"];
  const LABELS = [
    [/^chatbot conversation$/, names.chat],
    [/^Copy conversation$/, names.copyConversation],
    [/^Copy$/, names.copy],
    [/^bot's message: /, names.reply],
    [/^user's message: /, names.said],
    [/^(number input|range slider) for /, ""],
    [/^Gradio footer navigation$/, names.footer],
  ];

  function relabel() {
    for (const part of document.querySelectorAll("[aria-label]")) {
      for (const attribute of ["aria-label", "title"]) {
        const label = part.getAttribute(attribute);
        const found = label && LABELS.find(([pattern]) => pattern.test(label));
        const better = found && label.replace(...found);
        if (found && better !== label) part.setAttribute(attribute, better);
      }
    }
  }

  // ------------------------------------------------------------------ outer page

  let told = 0;
  function tellHeight() {
    const main = document.getElementById("main");
    const wrap = document.querySelector("#chat .bubble-wrap");
    const messages = wrap?.querySelector(".message-wrap");
    if (!main || !messages) return;
    const rest = [...main.children].reduce((sum, part) => sum + (part.id === "chat" ? 0 : part.offsetHeight + 10), 0);
    const height = Math.ceil(rest + messages.scrollHeight + 80);
    if (Math.abs(height - told) < 8) return;
    told = height;
    // Only a number leaves, so any outer page may have it.
    window.parent.postMessage({ type: "bianque:height", height }, "*");
  }

  const followed = new WeakSet();
  let isLooking = false;
  function look() {
    isLooking = false;
    if (isArriving) hold();
    relabel();
    const wrap = document.querySelector("#chat .bubble-wrap");
    if (wrap && !followed.has(wrap)) {
      followed.add(wrap);
      follow(wrap);
    }
    if (isCompact && window.parent !== window) tellHeight();
  }
  new MutationObserver(() => {
    if (isLooking) return;
    isLooking = true;
    requestAnimationFrame(look);
  }).observe(document.documentElement, { childList: true, subtree: true, characterData: true });

  return {
    ...{ loading, restore, restored, choosing, chosen, settle, standing, note, touch },
    ...{ remember, keep, begin, open, opened, forget, link, download, paper, picture, pick, picked },
  };
})();
