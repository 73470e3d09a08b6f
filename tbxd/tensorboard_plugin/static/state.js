// What the page knows, and what its parts share to ask and to build.

export const look = {
  runs: [], // in the order in which they began
  sets: [], // of names of runs, by name
  tags: new Map(), // by name, tag to {set, colors: Map of run to the colour that was asked for}
  listed: "", // what TensorBoard called the newest list
  live: null, off: new Set(), filter: "", runFilter: "", own: false, log: false, axis: "steps", smooth: 0, paused: false,
  pointed: null, // the run whose row, or name in the list, is pointed at
};

export const $ = id => document.getElementById(id);

export const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
};

// Text that is not set anew where it is the same: that would cost a layout.
export const write = (element, text) => { if (element.textContent !== text) element.textContent = text; };

export const ask = async (path, body) => {
  const options = body ? {method: "POST", body: JSON.stringify(body), headers: {"Content-Type": "application/json"}} : {};
  const answer = await fetch(`./${path}`, options);
  if (!answer.ok) throw new Error(`TensorBoard answers ${answer.status} to ${path.replace(/\?.*/, "")}`);
  return answer.json();
};

export const matcher = pattern => {
  if (!pattern) return () => true;
  try { const found = new RegExp(pattern, "i"); return name => found.test(name); }
  catch { return name => name.toLowerCase().includes(pattern.toLowerCase()); }
};

// The order in which names are shown: numbers in them by their size.
const natural = new Intl.Collator("en", {numeric: true});
export const byName = (one, other) => natural.compare(one, other) || (one < other ? -1 : Number(one > other));

// Answers of the plugin's `tags`.
export const take = found => {
  look.runs = found.runs;
  look.sets = found.sets.map(set => set.map(place => found.runs[place]).sort(byName));
  look.tags = new Map(Object.entries(found.tags).sort(([one], [other]) => byName(one, other)).map(([tag, [set, colors]]) =>
    [tag, {set, colors: new Map(Object.entries(colors).map(([place, color]) => [found.runs[place], color]))}]));
};

export const dark = () => document.documentElement.classList.contains("dark");
