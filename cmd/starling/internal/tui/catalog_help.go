package tui

import "maps"

// helpPhrases are the parts of the catalogue that /help shows.
var helpPhrases = map[string][2]string{
	"help keys": {
		"Alt+1..9,0\tthe nth conversation\n" +
			"Ctrl+N, Ctrl+P\tthe next, the previous (Alt+Down, Alt+Up)\n" +
			"Alt+A\tthe next with something new\n" +
			"Alt+/\tthe one before\n" +
			"Ctrl+G, Ctrl+F\tgo to by name, search here\n" +
			"PgUp, PgDn\tscroll; Shift+Up, Shift+Down by a line\n" +
			"Home, End\toldest, newest (when nothing is typed)\n" +
			"Alt+U\tthe first unread message\n" +
			"Alt+L\tthe messages alone, to copy from\n" +
			"Tab\tcomplete commands, nicks, rooms, paths\n" +
			"Up, Down\twhat was entered before\n" +
			"Alt+Enter\ta new line\n" +
			"Ctrl+C\tclears what is typed, then quits\n" +
			"Ctrl+L\tdraws the screen anew\n" +
			"Ctrl+A/E/K/U/W/Y/T\tand Alt+B/F/D as in readline\n" +
			"· ✓ ✓+ ✓✓ ✓✓° ✗\tbehind your messages: waits, sent, somebody keeps it, delivered, read, given up",
		"Alt+1..9,0\t第 n 个会话\n" +
			"Ctrl+N、Ctrl+P\t下一个、上一个（Alt+下、Alt+上）\n" +
			"Alt+A\t下一个有新内容的会话\n" +
			"Alt+/\t刚才的会话\n" +
			"Ctrl+G、Ctrl+F\t按名称前往、在此搜索\n" +
			"PgUp、PgDn\t滚动；Shift+上、Shift+下 逐行\n" +
			"Home、End\t最旧、最新（未输入时）\n" +
			"Alt+U\t第一条未读消息\n" +
			"Alt+L\t只显示消息，便于复制\n" +
			"Tab\t补全命令、昵称、房间、路径\n" +
			"上、下\t输入历史\n" +
			"Alt+Enter\t换行\n" +
			"Ctrl+C\t先清空输入，再退出\n" +
			"Ctrl+L\t重绘屏幕\n" +
			"Ctrl+A/E/K/U/W/Y/T\t及 Alt+B/F/D 与 readline 相同\n" +
			"· ✓ ✓+ ✓✓ ✓✓° ✗\t自己消息之后：等待、已发出、有人代存、已送达、已读、放弃",
	},

	"cmd help":     {"/help [command]\tthis page, or one command", "/help [命令]\t本页，或某个命令"},
	"cmd join":     {"/join #room [password] | LINK\tjoin a room, or follow a starling: link", "/join #房间 [密码] | 链接\t加入房间，或打开 starling: 链接"},
	"cmd part":     {"/part [#room]\tleave a room; its history stays", "/part [#房间]\t离开房间，历史保留"},
	"cmd query":    {"/query @who\topen a private conversation", "/query @某人\t打开私聊"},
	"cmd msg":      {"/msg @who [text]\twrite without going there, or go there", "/msg @某人 [文本]\t直接发送，或前往"},
	"cmd me":       {"/me action\tsay what you do", "/me 动作\t描述动作"},
	"cmd nick":     {"/nick name\tchange your nick", "/nick 昵称\t更改昵称"},
	"cmd topic":    {"/topic [text | -delete]\tshow, set or remove the topic", "/topic [文本 | -delete]\t查看、设置或移除主题"},
	"cmd names":    {"/names\twho was seen here, and how they are connected", "/names\t成员及其连接方式"},
	"cmd whois":    {"/whois [@who]\twhat is known about somebody", "/whois [@某人]\t查看某人信息"},
	"cmd invite":   {"/invite [#room | me | @who | list] [once] [72h]\ta link that lets somebody in, with a QR code; @who is sent it; list shows and revokes", "/invite [#房间 | me | @某人 | list] [once] [72h]\t邀请链接和二维码；@某人 直接发送；list 查看和撤销"},
	"cmd create":   {"/create name [none|all]\tmake a private room; newcomers see nothing (or all) of what was said before", "/create 名称 [none|all]\t创建私有房间；新成员看不到（或能看到全部）之前的内容"},
	"cmd kick":     {"/kick @who [reason]\ttake somebody out of a private room", "/kick @某人 [原因]\t将某人移出私有房间"},
	"cmd ban":      {"/ban @who [reason], /unban @who\tlet nobody admit them again", "/ban @某人 [原因]、/unban @某人\t禁止再次加入"},
	"cmd op":       {"/op @who [moderator|admin|owner], /deop @who\tgive a role in a private room, or take it back", "/op @某人 [moderator|admin|owner]、/deop @某人\t在私有房间授予或收回角色"},
	"cmd policy":   {"/policy [history none|all, invite ROLE, post ROLE]\twhat newcomers see; who may admit, and post", "/policy [history none|all、invite 角色、post 角色]\t新成员能看到什么；谁能邀请，谁能发言"},
	"cmd contact":  {"/contact [add|accept|reject|rename|block|unblock|remove @who [name]]\tpeople you know; alone: the list, with requests", "/contact [add|accept|reject|rename|block|unblock|remove @某人 [名称]]\t联系人；不带参数则列出，含请求"},
	"cmd accept":   {"/accept [@who]\tanswer a contact request", "/accept [@某人]\t接受联系请求"},
	"cmd reject":   {"/reject [@who]\tdrop a contact request", "/reject [@某人]\t丢弃联系请求"},
	"cmd ignore":   {"/ignore [@who]\tblock somebody", "/ignore [@某人]\t屏蔽某人"},
	"cmd unignore": {"/unignore [@who]\ttake a block back", "/unignore [@某人]\t取消屏蔽"},
	"cmd verify":   {"/verify [@who] [yes|no]\tcompare safety numbers", "/verify [@某人] [yes|no]\t核对安全码"},
	"cmd mute":     {"/mute, /unmute\twhether this conversation may notify", "/mute、/unmute\t本会话是否通知"},
	"cmd switch":   {"/switch\tgo to a conversation by name (Ctrl+G)", "/switch\t按名称前往会话（Ctrl+G）"},
	"cmd search":   {"/search [-all] [words]\tsearch here, or everywhere (Ctrl+F)", "/search [-all] [关键词]\t在此或全部搜索（Ctrl+F）"},
	"cmd history":  {"/history [n]\tthe last n messages with their ids", "/history [n]\t最近 n 条消息及编号"},
	"cmd reply":    {"/reply [n|@who|id] [text]\tanswer a message: the nth from below, somebody's last, or choose one", "/reply [n|@某人|编号] [文本]\t回复消息：倒数第 n 条、某人的最后一条，或选择"},
	"cmd edit":     {"/edit [n|id] [text]\tchange your last message, or another of yours", "/edit [n|编号] [文本]\t修改你的消息"},
	"cmd delete":   {"/delete [n|@who|id]\tdelete your last message, or another", "/delete [n|@某人|编号]\t删除你的消息；管理员可删除他人的"},
	"cmd react":    {"/react [n|@who|id] emoji\treact to a message; - takes it back", "/react [n|@某人|编号] 表情\t回应消息；- 撤回"},
	"cmd raw":      {"/raw [n|@who|id]\ta message byte by byte", "/raw [n|@某人|编号]\t逐字节查看消息"},
	"cmd read":     {"/read\tmark everything read", "/read\t全部标为已读"},
	"cmd outbox":   {"/outbox [retry|cancel ID]\twhat has not arrived yet", "/outbox [retry|cancel 编号]\t尚未送达的消息"},
	"cmd status":   {"/status\tthe state of the node", "/status\t节点状态"},
	"cmd peers":    {"/peers\twho is connected, and how", "/peers\t连接情况"},
	"cmd ping":     {"/ping [@who | PEER | ADDRESS]\tone round trip", "/ping [@某人 | 节点 | 地址]\t测量往返时间"},
	"cmd doctor":   {"/doctor\tcheck the connection and say what to do", "/doctor\t检查连接并给出建议"},
	"cmd set":      {"/set [name value]\tsettings", "/set [名称 值]\t设置"},
	"cmd lang":     {"/lang en|zh\tlanguage", "/lang en|zh\t语言"},
	"cmd quit":     {"/quit\tleave; what is being written stays", "/quit\t退出；正在写的内容会保留"},
	"cmd text":     {"//text\tsend a text that begins with a slash", "//文本\t发送以斜杠开头的文本"},
}

// welcomePhrases are those of a first run.
var welcomePhrases = map[string][2]string{
	"welcome": {
		"Starling is chat with no server and no account. This is the first run: keys are made in %s. Enter alone answers every question.\n\n" +
			"What others see: your nick, your IP address, and what you write in a room to everybody who knows its name. What you write to one person only that person can read.",
		"Starling 是没有服务器、无需注册的聊天。这是首次运行：密钥将生成于 %s。每个问题都可以直接按 Enter。\n\n" +
			"别人能看到：你的昵称、你的 IP 地址，以及你在房间里说的话（知道房间名的人都能读）。你写给某个人的话只有对方能读。",
	},
	"ask nick":       {"your nick: ", "昵称："},
	"ask passphrase": {"a passphrase for the keys on this disk (Enter for none): ", "本机密钥的口令（按 Enter 则不设）："},
	"ask again":      {"once more: ", "再输一次："},
	"long nick":      {"a nick has at most %d bytes", "昵称最多 %d 字节"},
	"they differ":    {"the two differ", "两次输入不一致"},
	"not taken":      {"that cannot be taken: %s", "无法采用：%s"},
	"the phrase": {
		"These words are your account. They are shown this once: write them down. Typed in place of a nick on a first run elsewhere, they make you yourself again.",
		"这些单词就是你的账号，只显示这一次：请抄下来。在别处首次运行时，用它们代替昵称输入，即可恢复身份。",
	},
	"phrase seen":      {"Enter goes on (and clears the words)", "按 Enter 继续（并清除这些单词）"},
	"ask word":         {"word %d (Enter skips): ", "第 %d 个单词（按 Enter 跳过）："},
	"wrong word":       {"That is not word %d. Here they are once more:", "第 %d 个单词不对。再显示一次："},
	"phrase known":     {"Right: you can come back as yourself.", "正确：你可以随时恢复身份。"},
	"phrase unchecked": {"Not checked. Without the words nobody can bring your account back.", "未核对。没有这些单词，谁也无法恢复你的账号。"},
}

func init() {
	maps.Copy(phrases, welcomePhrases)
	maps.Copy(phrases, helpPhrases)
}
