const e=`
pending|En espera|Wartet
receiving|Recibiendo|Wird empfangen
paused|En pausa|Pausiert
processing|Procesando|Wird verarbeitet
completed|Completado|Fertig
failed|Fallido|Fehlgeschlagen
cancelled|Cancelado|Abgebrochen
stalled|Detenido|Stockt
of|{0} de {1}|{0} von {1}
left|quedan {0}|noch {0}
sent|{0} enviados|{0} gesendet
received|{0} recibidos|{0} empfangen
stored|{0} almacenados|{0} gespeichert
no_data|no llegan datos|es kommen keine Daten an
buffered|almacenado por un proxy|von einem Proxy gepuffert
attempt|intento {0}|Versuch {0}
lost|Interrumpido, esperando al servidor|Unterbrochen, wartet auf den Server
cancel|Cancelar|Abbrechen
retry|Reintentar|Wiederholen
uploads|{0} de {1} archivos|{0} von {1} Dateien
unauthorized|Inicie sesión para ver sus envíos.|Bitte anmelden, um die Uploads zu sehen.
client_disconnected|La conexión se cortó antes del último byte.|Die Verbindung brach vor dem letzten Byte ab.
worker_lost|El servidor se detuvo antes de terminar.|Der Server hielt an, bevor er fertig war.
expired|No llegaron datos durante demasiado tiempo.|Zu lange kamen keine Daten an.
unknown|El servidor no conoce este envío.|Der Server kennt diesen Upload nicht.
network|No se puede leer el archivo o el servidor no responde.|Die Datei ist nicht lesbar, oder der Server antwortet nicht.
`;export{e as LABELS};
