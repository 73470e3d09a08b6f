// The tab "tbxd": the state of the daemon at the left, curves as they come at the right.
// Everything that was logged is put into the page as text, never as markup.

import {endCursors, loadAll, redraw, refresh, showMore} from "./cards.js";
import {recolor} from "./colors.js";
import {moment} from "./numbers.js";
import {listRuns, showLive, showLost} from "./side.js";
import {$, ask, look, make, take, write} from "./state.js";

const LIVE_MS = 1500, POINTS_MS = 2000, TAGS_MS = 5000; // between two looks
const REST = 4; // times as long as a look took, between two of them at the least
const NARROW = "(max-width: 760px)"; // where the list of runs is closed at first, as board.css puts it above the charts

// --- light and dark -------------------------------------------------------------------------------------------------

const followTheme = () => {
  const wanted = matchMedia("(prefers-color-scheme: dark)");
  let outer = null;
  try { outer = parent !== window ? parent.document.body : null; } catch { /* TensorBoard is in a frame of elsewhere */ }
  const set = () => {
    document.documentElement.classList.toggle("dark", outer ? outer.classList.contains("dark-mode") : wanted.matches);
    listRuns();
    redraw();
  };
  if (outer) new MutationObserver(set).observe(outer, {attributes: true, attributeFilter: ["class"]});
  else wanted.addEventListener("change", set);
  set();
};

// --- looks ----------------------------------------------------------------------------------------------------------

// One look after the other, and none while nobody sees the page. Where TensorBoard has much to tell it is asked less often.
const repeat = (task, pause) => {
  const turn = async () => {
    const begin = performance.now();
    if (!look.paused && !document.hidden) {
      try { await task(); write($("said"), ""); } catch (error) {
        write($("said"), `${error.message}: is TensorBoard still running?`);
        if (task === lookAtDaemon) showLost();
      }
    }
    setTimeout(turn, Math.max(pause, REST * (performance.now() - begin)));
  };
  return turn();
};

const lookForTags = async () => {
  const answer = await ask(`tags?known=${look.listed}`);
  if (answer.same) return;
  take(answer.data);
  look.listed = answer.digest;
  recolor();
  listRuns();
  refresh();
};

const lookAtDaemon = async () => showLive(await ask("live"));

const pause = on => {
  look.paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
  write($("pause"), on ? "go on" : "pause");
  write($("paused"), on ? `as it was at ${moment(Date.now() / 1000)}` : "");
};

// --- the page -------------------------------------------------------------------------------------------------------

const page = () => {
  const onType = (key, after) => event => { look[key] = event.target.value; after(); };
  const tick = (key, after) => event => { look[key] = event.target.checked; after(); };
  const option = (value, name) => make("option", {value}, name);
  const folded = (title, ...parts) => make("details", {open: !matchMedia(NARROW).matches}, make("summary", {}, make("h2", {}, title)), ...parts);
  document.documentElement.lang = "en";
  document.head.append(make("meta", {name: "viewport", content: "width=device-width"}),
    make("link", {rel: "stylesheet", href: "./board.css"}), make("title", {}, "tbxd"));
  document.body.append(make("main", {},
    make("aside", {"aria-label": "the daemon and the runs"},
      make("div", {id: "state", role: "status"}, "looking for the daemon"), make("div", {id: "about", class: "dim note"}),
      make("div", {id: "stale", class: "bad note"}), make("dl", {id: "numbers"}), make("div", {id: "notes"}),
      folded("Runs",
        make("input", {type: "search", id: "run-filter", placeholder: "filter runs (regular expression)",
          "aria-label": "filter runs", oninput: onType("runFilter", () => { listRuns(); refresh(); })}),
        make("ul", {id: "runs"}), make("div", {id: "runs-left", class: "dim"}), make("div", {id: "elsewhere", class: "dim note"})),
      folded("Keys",
        make("div", {id: "keys"}, make("kbd", {}, "/"), " filters tags, ", make("kbd", {}, "p"), " pauses, ", make("kbd", {}, "Tab"),
          " goes from chart to chart; there ", make("kbd", {}, "←"), " ", make("kbd", {}, "→"), " ", make("kbd", {}, "Home"), " ",
          make("kbd", {}, "End"), " move the cursor, ", make("kbd", {}, "Enter"), " widens, ", make("kbd", {}, "Esc"), " ends"))),
    make("section", {},
      make("div", {id: "bar"},
        make("input", {type: "search", id: "filter", placeholder: "filter tags (regular expression)", "aria-label": "filter tags",
          oninput: onType("filter", refresh)}),
        make("label", {}, "x axis ", make("select", {id: "axis", onchange: onType("axis", () => { endCursors(); redraw(); })},
          option("steps", "step"), option("relative", "relative time"), option("time", "time of day"))),
        make("label", {}, "smoothing ", make("input", {type: "range", id: "smooth", min: "0", max: "0.99", step: "0.01", value: "0",
          oninput: event => { look.smooth = Number(event.target.value); redraw(); }})),
        make("label", {}, make("input", {type: "checkbox", id: "log", onchange: tick("log", redraw)}), " log scale"),
        make("label", {}, make("input", {type: "checkbox", id: "own", onchange: tick("own", refresh)}), " tbxd/… tags"),
        make("button", {id: "pause", "aria-pressed": "false", onclick: () => pause(!look.paused)}, "pause"),
        make("span", {id: "paused", class: "dim"}), make("span", {id: "said", class: "bad", role: "alert"})),
      make("div", {id: "cards"}), make("p", {id: "nothing", class: "dim"}),
      make("button", {id: "more", hidden: true, onclick: showMore}, "show more"),
      make("div", {id: "spoken", class: "spoken", "aria-live": "polite"}))));
  document.addEventListener("keydown", event => {
    const typing = event.target.matches("input[type=search], select");
    if (typing && event.key === "Escape") event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); $("filter").focus(); }
    if (event.key === "p") pause(!look.paused);
  });
};

// Called by TensorBoard.
export const render = () => {
  page();
  followTheme();
  repeat(lookForTags, TAGS_MS);
  repeat(lookAtDaemon, LIVE_MS);
  repeat(loadAll, POINTS_MS);
};
