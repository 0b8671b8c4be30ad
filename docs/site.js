// Tables of texts have at most five columns, none of them aligned; site.css lays them out for phones.
for (const table of document.querySelectorAll(".md-typeset table:not([class])")) {
  const columns = [...table.querySelectorAll("th")];
  if (columns.length > 5 || columns.some((column) => column.style.textAlign)) continue;
  table.dataset.texts = "";
  for (const cell of table.querySelectorAll("td")) {
    cell.dataset.column = columns[cell.cellIndex].textContent;
  }
}

// Lines do not break within a flag or an interval.
function keepTogether(element, pattern) {
  for (const node of [...element.childNodes]) {
    if (node.nodeType !== Node.TEXT_NODE) continue;
    const parts = node.textContent.split(pattern).map((part, index) => {
      if (index % 2 === 0) return part;
      const together = document.createElement("span");
      together.className = "together";
      together.textContent = part;
      return together;
    });
    node.replaceWith(...parts);
  }
}
for (const code of document.querySelectorAll(".md-typeset :not(pre) > code")) {
  keepTogether(code, /(--\w+(?:=[\d.]+|=)?)/);
}
for (const cell of document.querySelectorAll(".md-typeset td")) {
  keepTogether(cell, /(\[[^\]]*\])/);
}

// A figure opens in full size.
for (const image of document.querySelectorAll(".md-typeset img")) {
  const link = document.createElement("a");
  link.href = image.src;
  image.replaceWith(link);
  link.append(image);
}
