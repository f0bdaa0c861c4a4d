"use strict";
(() => {
  const byId = (name) => document.getElementById(name);
  const body = document.body, left = byId("left"), right = byId("right"), original = byId("original");
  const buttons = [...document.querySelectorAll("#bar button")];
  let rater = "", current = null, shownAt = 0, round = 0, urls = [];

  // start, loading, playing (seen less than once), ready (votes count), saving, finished
  function enter(state) {
    body.dataset.state = state;
    for (const button of buttons) button.disabled = state !== "ready";
  }

  function fail(error) {
    byId("error").textContent = error.message;
    byId("error").hidden = false;
  }

  async function ask(path, values) {
    const options = values && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) };
    const answer = await fetch(path, options);
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    return found;
  }

  const players = () => (current.original ? [left, right, original] : [left, right]);

  // Whole clips are fetched before the first picture, so that neither side waits for data.
  async function load(video, name) {
    const answer = await fetch(`/media/${name}`);
    if (!answer.ok) throw new Error("a clip is missing");
    const url = URL.createObjectURL(await answer.blob());
    urls.push(url);
    video.dataset.media = name;
    const ready = new Promise((resolve, reject) => {
      video.addEventListener("canplaythrough", resolve, { once: true });
      video.addEventListener("error", () => reject(new Error("this browser does not play the clip")), { once: true });
    });
    video.src = url;
    video.load();
    await ready;
  }

  async function next() {
    enter("loading");
    const mine = ++round;
    current = await ask(`/api/next?rater=${encodeURIComponent(rater)}`);
    byId("progress").textContent = `${current.done} of ${current.total}`;
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = [];
    if (current.pair === null) {
      enter("finished");
      return;
    }
    body.dataset.pair = current.pair;
    body.toggleAttribute("data-original", current.original !== null);
    const wanted = [load(left, current.left), load(right, current.right)];
    if (current.original) wanted.push(load(original, current.original));
    await Promise.all(wanted);
    for (const video of players()) video.width = Math.round(current.width / window.devicePixelRatio);
    enter("playing");
    shownAt = performance.now();
    await play();
    follow(mine);
  }

  async function play() {
    for (const video of players()) {
      video.currentTime = 0;
      video.playbackRate = 1;
    }
    await Promise.all(players().map((video) => video.play()));
  }

  // Once every clip has ended all start again together; between, the others are led along by the left one.
  function follow(mine) {
    if (mine !== round || !current || current.pair === null) return;
    const all = players();
    if (all.every((video) => video.ended)) {
      if (body.dataset.state === "playing") enter("ready");
      play().catch(fail);
    } else {
      const frame = 1 / current.frame_rate;
      for (const video of all.slice(1)) {
        const drift = video.currentTime - left.currentTime;
        if (video.ended || left.ended || video.paused) continue;
        if (Math.abs(drift) > 4 * frame) video.currentTime = left.currentTime;
        else video.playbackRate = Math.abs(drift) > frame / 2 ? 1 - Math.sign(drift) * 0.1 : 1;
      }
    }
    requestAnimationFrame(() => follow(mine));
  }

  async function vote(choice) {
    if (body.dataset.state !== "ready") return;
    enter("saving");
    await ask("/api/vote", { rater, pair: current.pair, choice, seconds: (performance.now() - shownAt) / 1000 });
    await next();
  }

  async function undo() {
    if (!["playing", "ready", "finished"].includes(body.dataset.state)) return;
    enter("saving");
    await ask("/api/undo", { rater });
    await next();
  }

  function pause() {
    for (const video of players()) if (video.paused && !video.ended) video.play(); else video.pause();
  }

  const guard = (promise) => promise.catch(fail);
  const keys = { ArrowLeft: () => vote("left"), ArrowRight: () => vote("right"), ArrowDown: () => vote("equal"), Backspace: undo };
  document.addEventListener("keydown", (event) => {
    if (body.dataset.state === "start" || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const shown = ["playing", "ready"].includes(body.dataset.state);
    if (keys[event.key]) guard(keys[event.key]());
    else if (event.key === " " && shown && event.target.tagName !== "BUTTON") pause();
    else if (event.key.toLowerCase() === "r" && shown) guard(play());
    else return;
    event.preventDefault();
  });
  for (const button of buttons) button.addEventListener("click", () => guard(vote(button.dataset.choice)));
  for (const name of ["undo", "undo-last"]) byId(name).addEventListener("click", (event) => {
    event.target.blur();
    guard(undo());
  });
  byId("enter").addEventListener("submit", (event) => {
    event.preventDefault();
    rater = byId("rater").value.trim();
    if (rater) guard(next());
  });
  enter("start");
})();
